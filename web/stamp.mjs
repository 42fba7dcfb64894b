// Writes the hash of the sources beside the built page: a test compares it, so a stale build is noticed without Node.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const files = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js"];
for (const name of readdirSync("src")) files.push(join("src", name));
files.sort();
const hash = createHash("sha256");
for (const file of files) hash.update(file + "\0").update(readFileSync(file)).update("\0");
writeFileSync("../src/orchard/app/lab_static/sources.json", JSON.stringify({ sha256: hash.digest("hex") }) + "\n");
