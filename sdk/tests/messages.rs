//! What a wrong handler is told: each program in `fail/` must not compile, and its `.stderr` beside
//! it holds the message.

#[test]
fn mistakes_have_good_messages() {
    trybuild::TestCases::new().compile_fail("tests/fail/*.rs");
}

#[test]
fn right_handlers_compile() {
    trybuild::TestCases::new().pass("tests/pass/*.rs");
}
