;; A CGI program that says TEXT, which a test puts in: every text is another artifact.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00" "\3c\00\00\00")
  (data (i32.const 16) "Content-Type: text/plain\0d\0a\0d\0a" "TEXT")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
