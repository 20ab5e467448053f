// What the numbers say, in sentences. Each follows from the numbers that it names, whatever the network.
import {percent} from "./charts.mjs";
import {rankCorrelation} from "./votes.mjs";

const arrows = (values) => values.join(" → ");
const signed = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

// Which class is most active, and how sure that is.
export function answer(names, activations, [first, second]) {
  const value = (j) => activations[j].toFixed(2);
  const start = `Most active is ${names[first]} (${value(first)}), then ${names[second]} (${value(second)}).`;
  return activations[first] < 0.5 ? `${start} No class is above 0.5: the network is not sure.` : start;
}

// By iteration: which data the shown classes get, and whether their votes come together.
export function sentences(names, [first, second], histories) {
  const even = 1 / histories.length, shown = [first, second];
  const said = shown.map((j) => dataSentence(names[j], histories[j], even));
  said.push(activationSentence(histories));
  for (const j of shown) said.push(votesSentence(names[j], histories[j]));
  said.push(comparison(names, shown, histories));
  return said;
}

function dataSentence(name, history, even) {
  const shares = history.map(({share}) => share), last = shares.at(-1);
  const against = Math.abs(last / even - 1) < 0.05 ? "about an equal share" :
    last > even ? "more than an equal share" : "less than an equal share";
  return `${name} gets ${arrows(shares.map((share) => percent(share)))} of the data, in the end ${against} ` +
    `(${percent(even, 0)}).`;
}

// Whether classes with more data are more active, over all classes after the last iteration.
function activationSentence(histories) {
  const last = histories.map((history) => history.at(-1));
  const rho = rankCorrelation(last.map(({share}) => share), last.map(({activation}) => activation));
  const meaning = rho > 0.5 ? "those with more data are more active" :
    rho < -0.5 ? "those with less data are more active: a class does not wake by gathering data here" :
    "how much data a class has says little of how active it is";
  return `Over all ${histories.length} classes, after the last iteration: ${meaning} (rank correlation of data and activation ${signed(rho)}).`;
}

const fall = (history) => history[0].logDeviation - history.at(-1).logDeviation;

function votesSentence(name, history) {
  const values = arrows(history.map(({logDeviation}) => signed(logDeviation)));
  const change = fall(history), ratio = Math.exp(-change);
  const meaning = Math.abs(change) < 0.02 ? "its votes spread as before" : change > 0 ?
    `its votes come together, to ${ratio.toFixed(2)} of the spread that they began with` :
    `its votes spread, to ${ratio.toFixed(2)} times what they began with`;
  return `The mean ln σ of ${name} goes ${values}: ${meaning}.`;
}

function comparison(names, [first, second], histories) {
  const falls = histories.map(fall), difference = falls[first] - falls[second];
  const more = Math.abs(difference) < 0.02 ? `as much as those of ${names[second]}` :
    difference > 0 ? `more than those of ${names[second]}` : `less than those of ${names[second]}`;
  const ahead = falls.filter((value) => value > falls[first]).length;
  const rank = ahead === 0 ? "more than those of any other class" :
    `and ${ahead} of the ${falls.length - 1} other classes come together more`;
  return ahead === 0 ? `From the first iteration to the last, the votes of ${names[first]} come together ${rank}.` :
    `From the first iteration to the last, the votes of ${names[first]} come together ${more}, ${rank}.`;
}
