//! What a deploy is refused for, as the command line tells it: a code, a reason, what to do about
//! it, an exit code; and nothing is half done.
