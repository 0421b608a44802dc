-- A POST of 64 KiB.
wrk.method = "POST"
wrk.body = string.rep("abcdefghijklmnopqrstuvwxyz012345", 2048)
