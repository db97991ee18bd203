/** The process that the tests kill: writes numbered batches into a directory and prints the number of each that has resolved. */
import { fileStorage } from "../../src/node/index.js";
import { batchOf, COUNT, numberOf } from "./batches.js";

const directory = process.argv[2];
if (directory === undefined) throw new Error("usage: writer DIRECTORY");
const storage = fileStorage(directory);
let number = numberOf(await storage.get(COUNT));
process.stdout.write(`${number}\n`);
for (;;) {
  // Several at a time, so that groups are killed, too.
  const numbers = [++number, ++number, ++number];
  await Promise.all(numbers.map((each) => storage.write(batchOf(each)).then(() => process.stdout.write(`${each}\n`))));
}
