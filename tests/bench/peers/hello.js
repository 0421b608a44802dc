export default {
  fetch() {
    return new Response("Hello from JavaScript!\n", {
      headers: { "content-type": "text/plain; charset=utf-8" },
    });
  },
};
