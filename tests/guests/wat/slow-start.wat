;; A component of WASI 0.2 that computes for a while when an instance of it is made, and serves its
;; instance's first request without an answer. A second one would trap.
(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $incoming-request))
  (alias export $types "response-outparam" (type $response-outparam))
  (core module $program
    (global $served (mut i32) (i32.const 0))
    (func $start (local $rounds i32)
      (loop $again
        (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $rounds) (i32.const 3000000)))))
    (start $start)
    (func (export "handle") (param i32 i32)
      (if (global.get $served) (then unreachable))
      (global.set $served (i32.const 1))))
  (core instance $instance (instantiate $program))
  (func $handle
    (param "request" (own $incoming-request))
    (param "response-out" (own $response-outparam))
    (canon lift (core func $instance "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
