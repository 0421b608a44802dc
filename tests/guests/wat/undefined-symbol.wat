;; A core module whose linker left a symbol open.
(module
  (import "env" "puts" (func (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (drop (call 0 (i32.const 0)))))
