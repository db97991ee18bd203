/** Opens the document that the address names, or makes one. */
import { isValidAutomergeUrl } from "@automerge/automerge-repo";
import { RepoContext } from "@automerge/automerge-repo-react-hooks";
import { StrictMode, Suspense } from "react";
import { createRoot } from "react-dom/client";
import { repo } from "./repo.js";
import { Tasks, type TaskList } from "./Tasks.js";

const named = location.hash.slice(1);
const url = isValidAutomergeUrl(named) ? named : repo.create<TaskList>({ tasks: [] }).url;
location.hash = url;

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has the root");
createRoot(root).render(
  <StrictMode>
    <RepoContext.Provider value={repo}>
      <Suspense fallback={<p>Loading</p>}>
        <Tasks url={url} />
      </Suspense>
    </RepoContext.Provider>
  </StrictMode>,
);
