#[faas_sdk::function]
async fn handle(name: String) -> String {
    format!("hello {name}")
}

fn main() {}
