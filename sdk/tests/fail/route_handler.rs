use faas_sdk::{Request, Router};

async fn count(_: Request) -> usize {
    7
}

fn main() {
    let _ = Router::new().get("/count", count);
}
