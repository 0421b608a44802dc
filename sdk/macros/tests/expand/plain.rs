fn hello(_: Request) -> &'static str {
    "hello"
}
const _: () = {
    ::faas_sdk::__private::check_plain(&hello);
    ::faas_sdk::__export!(hello, ignore);
};
