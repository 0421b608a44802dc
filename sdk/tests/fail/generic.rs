use faas_sdk::Request;

#[faas_sdk::function]
async fn handle<T: Default>(_: Request<T>) -> &'static str {
    "hello"
}

fn main() {}
