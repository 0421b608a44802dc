async fn hello() -> Result<Response> {
    answer("hello")
}
::core::compile_error! {
    "a handler takes the request, even if it ignores it: `async fn handle(request: Request) -> Result<Response>`"
}
