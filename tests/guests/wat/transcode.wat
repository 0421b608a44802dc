;; A component of WASI 0.2 that hands a string to one of its own in another encoding, and that one
;; says it should be written where none can be.
(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $incoming-request))
  (alias export $types "response-outparam" (type $response-outparam))
  (component $callee
    (core module $m
      (memory (export "memory") 1)
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const POINTER))
      (func (export "take") (param i32 i32)))
    (core instance $i (instantiate $m))
    (func (export "take") (param "s" string)
      (canon lift (core func $i "take") (memory (core memory $i "memory"))
        (realloc (core func $i "realloc")) string-encoding=ENCODING)))
  (instance $callee (instantiate $callee))
  (alias export $callee "take" (func $take))
  (core module $libc (memory (export "memory") 1)
    (data (i32.const 8) "h\c3\a9llo \e2\82\ac \f0\9f\98\80 and so on"))
  (core instance $libc (instantiate $libc))
  (core func $take (canon lower (func $take) (memory (core memory $libc "memory"))))
  (core module $program
    (import "" "take" (func $take (param i32 i32)))
    (func (export "handle") (param i32 i32) (call $take (i32.const 8) (i32.const 26))))
  (core instance $instance (instantiate $program
    (with "" (instance (export "take" (func $take))))))
  (func $handle
    (param "request" (own $incoming-request))
    (param "response-out" (own $response-outparam))
    (canon lift (core func $instance "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
