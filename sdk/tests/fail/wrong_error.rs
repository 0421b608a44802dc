use faas_sdk::Request;

struct Refused;

#[faas_sdk::function]
async fn handle(_: Request) -> Result<String, Refused> {
    Err(Refused)
}

fn main() {}
