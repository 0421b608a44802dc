use faas_sdk::Request;

struct App;

impl App {
    #[faas_sdk::function]
    async fn handle(&self, _: Request) -> &'static str {
        "hello"
    }
}

fn main() {}
