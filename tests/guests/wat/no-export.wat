;; Valid, and nothing the host can call.
(module
  (func (export "run"))
  (func (export "handle")))
