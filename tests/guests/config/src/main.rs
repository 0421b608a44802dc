//! Reads its configuration through both names of `wasi:config/store`: what `get` says of the name
//! in the query, and what `get-all` has.

mod release_candidate {
    wit_bindgen::generate!({
        inline: "
            package wasi:config@0.2.0-rc.1;

            interface store {
                variant error { upstream(string), io(string) }
                get: func(key: string) -> result<option<string>, error>;
                get-all: func() -> result<list<tuple<string, string>>, error>;
            }

            world reads { import store; }
        ",
    });
}

mod draft {
    wit_bindgen::generate!({
        inline: "
            package wasi:config@0.2.0-draft-2024-09-27;

            interface store {
                variant error { upstream(string), io(string) }
                get: func(key: string) -> result<option<string>, error>;
                get-all: func() -> result<list<tuple<string, string>>, error>;
            }

            world reads { import store; }
        ",
    });
}

use draft::wasi::config::store as old;
use release_candidate::wasi::config::store;

fn main() {
    let name = std::env::var("QUERY_STRING").unwrap_or_default();
    let list = |mut pairs: Vec<(String, String)>| {
        pairs.sort();
        let pairs: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(",")
    };
    println!("Content-Type: text/plain\r\n\r");
    println!("rc {:?}", store::get(&name).unwrap());
    println!("draft {:?}", old::get(&name).unwrap());
    println!("rc-all {}", list(store::get_all().unwrap()));
    println!("draft-all {}", list(old::get_all().unwrap()));
}
