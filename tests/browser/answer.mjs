// Answers questions about docs/_browser that tests/browser/test_page_code.py asks, as JSON on standard input.
import {readFileSync} from "node:fs";
import {exampleOf, imageOf, prepared} from "../../docs/_browser/drawing.mjs";
import {renderPair, SOLIDS} from "../../docs/_browser/stereo.mjs";
import * as votes from "../../docs/_browser/votes.mjs";

const ANSWERS = {
  drawings: (drawings) => drawings.map((strokes) => [...imageOf(strokes)]),
  examples: (digits) => digits.map((strokes, k) => [...imageOf(exampleOf(strokes, k))]),
  solids: (view) => Object.fromEntries(Object.keys(SOLIDS).map((solid) => [solid, Array.from({length: 18}, (_, k) =>
    [...renderPair({solid, azimuth: 20 * k, ...view})])])),
  prepared: ({levels, channels, preparation}) => [...prepared(levels, channels, preparation)],
  routing: (outputs) => {
    for (const output of Object.values(outputs)) output.data = Float32Array.from(output.data);
    const routing = votes.readRouting(outputs), classes = [...Array(routing.J).keys()];
    return {
      histories: classes.map((j) => votes.history(routing, j)),
      distances: classes.map((j) => [...Array(routing.T).keys()].map((t) => [...votes.distances(routing, t, j)])),
      held: classes.map((j) => votes.principalPlane(routing, j).held),
    };
  },
};

const [[name, question]] = Object.entries(JSON.parse(readFileSync(0, "utf8")));
process.stdout.write(JSON.stringify(ANSWERS[name](question)));
