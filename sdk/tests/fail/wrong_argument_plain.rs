#[faas_sdk::function]
fn handle(name: String) -> String {
    format!("hello {name}")
}

fn main() {}
