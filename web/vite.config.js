import { defineConfig } from "vite";

// Preact's JSX without a plugin; the output is package data of the Python package.
export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: { outDir: "../src/orchard/app/lab_static", emptyOutDir: true, modulePreload: false, assetsInlineLimit: 0 },
  server: { proxy: { "/api": "http://127.0.0.1:8080" } },
});
