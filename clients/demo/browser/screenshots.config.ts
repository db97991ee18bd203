/** Takes the pictures of README.md instead of running tests. */
import { mergeConfig } from "vitest/config";
import tests from "./vitest.config.ts";

const config = mergeConfig(tests, {});
config["test"].include = ["screenshots.ts"];

export { config as default };
