use faas_sdk::Request;

#[faas_sdk::function]
fn handle(_: Request) -> u32 {
    200
}

fn main() {}
