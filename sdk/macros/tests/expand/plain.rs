fn hello(_: Request) -> &'static str {
    "hello"
}
const _: () = {
    ::faas_sdk::__private::check(&hello);
    ::faas_sdk::__export!(hello);
};
