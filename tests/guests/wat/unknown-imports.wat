;; A component for 0.2 with one import of a pre-release and one that nobody has.
(component
  (import "wasi:http/types@0.2.0-rc-2023-11-10" (instance))
  (import "my:own/thing@1.2.3" (instance))
  (import "wasi:io/poll@0.2.0" (instance))
  (component $empty)
  (instance $handler (instantiate $empty))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
