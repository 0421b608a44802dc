#[faas_sdk::function]
struct Handler;

fn main() {}
