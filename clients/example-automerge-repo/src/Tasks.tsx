/** A list of tasks, shared by whoever opens the same address. */
import type { AutomergeUrl } from "@automerge/automerge-repo";
import { useDocHandle, useDocument, usePresence } from "@automerge/automerge-repo-react-hooks";
import { useState, type FormEvent } from "react";

export interface TaskList {
  tasks: { title: string; done: boolean }[];
}

export function Tasks({ url }: { url: AutomergeUrl }) {
  const [list, change] = useDocument<TaskList>(url, { suspense: true });
  const [title, setTitle] = useState("");

  const add = (event: FormEvent): void => {
    event.preventDefault();
    if (title.trim() === "") return;
    change((draft) => draft.tasks.push({ title, done: false }));
    setTitle("");
  };
  const toggle = (number: number): void =>
    change((draft) => {
      const task = draft.tasks[number];
      if (task !== undefined) task.done = !task.done;
    });

  return (
    <main>
      <h1>Tasks</h1>
      <Others url={url} />
      <ul>
        {list.tasks.map((task, number) => (
          <li key={number}>
            <label>
              <input type="checkbox" checked={task.done} onChange={() => toggle(number)} /> {task.title}
            </label>
          </li>
        ))}
      </ul>
      <form onSubmit={add}>
        <input aria-label="A new task" value={title} onChange={(event) => setTitle(event.target.value)} />
        <button>Add</button>
      </form>
    </main>
  );
}

/** How many others have the list open. */
function Others({ url }: { url: AutomergeUrl }) {
  const handle = useDocHandle<TaskList>(url, { suspense: true });
  const { peerStates } = usePresence({ handle, initialState: {} });
  return <p>Others here: {Object.keys(peerStates.value).length}</p>;
}
