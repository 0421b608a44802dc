use faas_sdk::Request;

#[faas_sdk::function]
async fn handle(_: Request) -> u32 {
    200
}

fn main() {}
