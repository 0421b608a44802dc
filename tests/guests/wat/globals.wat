;; A CGI program that counts in what is not linear memory: a global, a table's size, a passive
;; segment. It says 1 and 1 as long as each instance is a new one.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (table $table 1 10 funcref)
  (global $count (mut i32) (i32.const 0))
  (data (i32.const 0) "\10\00\00\00" "\1f\00\00\00")
  (data (i32.const 16) "Content-Type: text/plain\0d\0a\0d\0a" "0 0")
  (data $passive "x")
  (func (export "_start")
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (i32.store8 (i32.const 44) (i32.add (i32.const 48) (global.get $count)))
    (i32.store8 (i32.const 46)
      (i32.add (i32.const 48) (table.grow $table (ref.null func) (i32.const 1))))
    ;; A segment that an earlier instance had dropped would trap here.
    (memory.init $passive (i32.const 100) (i32.const 0) (i32.const 1))
    (data.drop $passive)
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
