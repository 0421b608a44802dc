;; A CGI program: it writes a header block and a body to standard output.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 1)

  ;; One buffer to write: it begins at byte 16 and is 57 bytes long.
  (data (i32.const 0) "\10\00\00\00" "\39\00\00\00")
  (data (i32.const 16)
    "Content-Type: text/plain\0d\0a\0d\0a"
    "Hello from WebAssembly text!\n")

  (func (export "_start")
    (call $fd_write
      (i32.const 1)  ;; standard output
      (i32.const 0)  ;; where the list of buffers is
      (i32.const 1)  ;; how many there are
      (i32.const 8)) ;; where to put the number of bytes written
    if ;; an error: the answer is not complete
      unreachable
    end))
