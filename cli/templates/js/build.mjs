import { mkdir, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const { component } = await componentize({ sourcePath: "src/index.js", witPath: "wit" });
await mkdir("dist", { recursive: true });
await writeFile("dist/{{name}}.wasm", component);
