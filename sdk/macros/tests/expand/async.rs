/// Says hello.
#[cfg_attr(test, allow(unused))]
pub async fn hello(_request: Request) -> Result<Response> {
    answer("hello")
}
const _: () = {
    ::faas_sdk::__private::check_async(&hello);
    ::faas_sdk::__export!(hello, receive);
};
