import { MemoryOrigin } from "../../src/tabs/memory.js";
import { tabsContract } from "./contract.js";

tabsContract("memory", async () => {
  const origin = new MemoryOrigin();
  return async () => {
    const page = origin.page();
    const crash = async (): Promise<void> => page.kill();
    return { tabs: page, crash, close: crash };
  };
});
