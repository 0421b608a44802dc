//! Which address is which version of which app.

use faas_api::ErrorCode;
use faas_tests::{
    Node, Request,
    artifacts::{Guest, says},
};

fn by_host(node: &Node, host: &str, path: &str) -> faas_tests::Answer {
    node.send(&Request::get(path).header("host", host))
}

#[test]
fn hosts_paths_and_previews() {
    let node = Node::start();
    for version in ["one", "two"] {
        node.deploy("shop", &says(version));
    }
    node.deploy("my-app", &says("mine"));
    for (host, path, text) in [
        ("127.0.0.1", "/shop/", "two"),
        ("127.0.0.1", "/shop/deep/path?x=y", "two"),
        ("127.0.0.1", "/shop@v1/", "one"),
        ("shop.localhost", "/", "two"),
        ("SHOP.LocalHost:1234", "/my-app/", "two"),
        ("v1--shop.localhost", "/", "one"),
        ("v2--shop.localhost:8080", "/x", "two"),
        ("my-app.localhost", "/", "mine"),
        ("my-app.localhost.", "/", "mine"),
        ("elsewhere.example", "/my-app/", "mine"),
    ] {
        let answer = by_host(&node, host, path).expect(200);
        assert_eq!(answer.text().trim(), text, "{host}{path}");
        assert!(answer.header("x-request-id").is_some());
    }
    for (host, path) in [
        ("127.0.0.1", "/"),
        ("127.0.0.1", "/nothing/"),
        ("127.0.0.1", "/Shop/"),
        ("127.0.0.1", "/%73hop/"),
        ("127.0.0.1", "/shop@v3/"),
        ("127.0.0.1", "/shop@v0/"),
        ("127.0.0.1", "/shop@v01/"),
        ("127.0.0.1", "/shop@/"),
        ("127.0.0.1", "//shop/"),
        ("nothing.localhost", "/"),
        ("v3--shop.localhost", "/"),
        ("x.shop.localhost", "/"),
    ] {
        let answer = by_host(&node, host, path);
        answer.failure(ErrorCode::NotFound);
        assert_eq!(answer.header("x-faas-version"), None, "{host}{path}");
    }
}

#[test]
fn an_app_without_its_slash_is_sent_there() {
    let node = Node::start();
    node.deploy("shop", &says("one"));
    let answer = node.get("/shop?a=b").expect(308);
    assert_eq!(answer.header("location"), Some("/shop/?a=b"));
    assert!(answer.header("x-request-id").is_some());
}

#[test]
fn without_path_routing_only_hosts_count() {
    let node = Node::with("[ingress]\npath_routing = false\nbase_domain = \"apps.test\"\n");
    let deployed = node.deploy("shop", &says("one"));
    let port = node.ingress().port();
    assert_eq!(deployed.url, format!("http://shop.apps.test:{port}/"));
    node.get("/shop/").failure(ErrorCode::NotFound);
    assert_eq!(by_host(&node, "shop.apps.test", "/shop/").status, 200);
    assert_eq!(by_host(&node, "v1--shop.apps.test", "/").status, 200);
    by_host(&node, "shop.localhost", "/").failure(ErrorCode::NotFound);
}

/// What the guest sees of its own address.
#[test]
fn the_guest_sees_the_path_inside_its_app() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let app = guest.app();
        let ip = "127.0.0.1";
        let seen = |host: &str, path: &str| by_host(&node, host, path).expect(200).text();
        let text = seen(ip, &format!("/{app}/headers?a=%20b&c"));
        assert!(text.contains("path /headers\nquery a=%20b&c\n"), "{guest:?}: {text}");
        assert!(text.contains(&format!("x-forwarded-prefix: /{app}\n")), "{guest:?}: {text}");
        let text = seen(ip, &format!("/{app}@v1/headers"));
        assert!(text.contains(&format!("x-forwarded-prefix: /{app}@v1\n")), "{guest:?}: {text}");
        let text = seen(&format!("{app}.localhost"), "/headers");
        assert!(text.contains("path /headers\n"), "{guest:?}: {text}");
        assert!(!text.contains("x-forwarded-prefix"), "{guest:?}: {text}");
    }
}
