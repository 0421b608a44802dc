;; A CGI program without data segments, which looks for anything but zero in its memory: first in
;; what it starts with, then in 32 MiB of new memory. It says `0`, or `1` where it found something.
;; A used slot that is cleaned by the image of the next module has nothing to clean it with here.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 3)
  (func $dirty (param $from i32) (param $to i32) (result i32)
    (loop $next
      (if (i64.ne (i64.load (local.get $from)) (i64.const 0))
        (then (return (i32.const 1))))
      (local.set $from (i32.add (local.get $from) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $from) (local.get $to))))
    (i32.const 0))
  (func (export "_start") (local $found i32)
    (local.set $found (call $dirty (i32.const 0) (i32.const 0x30000)))
    (if (i32.ne (memory.grow (i32.const 512)) (i32.const 3)) (then unreachable))
    (local.set $found
      (i32.or (local.get $found) (call $dirty (i32.const 0x30000) (i32.const 0x2030000))))
    ;; "A:b\n\n" and the answer, written byte by byte.
    (i64.store (i32.const 16) (i64.const 0x000a0a623a41))
    (i32.store8 (i32.const 21) (i32.add (i32.const 48) (local.get $found)))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 6))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
