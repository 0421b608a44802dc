use faas_sdk::Request;

#[faas_sdk::function(path = "/hello")]
async fn handle(_: Request) -> &'static str {
    "hello"
}

fn main() {}
