import js from "@eslint/js";
import globals from "globals";

const SCRIPTS = ["docs/static/*.js", "src/preceptor/report/templates/*.js"];

export default [
  js.configs.recommended,
  { languageOptions: { globals: globals.browser } },
  { files: SCRIPTS, languageOptions: { sourceType: "script" } },
];
