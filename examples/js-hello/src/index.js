addEventListener("fetch", (event) => event.respondWith(handle(event.request)));

async function handle(_request) {
  return new Response("Hello from JavaScript!\n", {
    headers: { "content-type": "text/plain; charset=utf-8" },
  });
}
