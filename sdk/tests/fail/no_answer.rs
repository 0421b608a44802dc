use faas_sdk::Request;

#[faas_sdk::function]
async fn handle(request: Request) {
    drop(request);
}

fn main() {}
