// The playbook as a graph: from left to right where there is room, else from the top.
const NODE = { width: 176, height: 54 };

function drawGraph() {
  const home = at('graph'), graph = data.graph;
  if (graph === null || steps.length === 0) {
    home.replaceChildren(element('p', { class: 'quiet', text: steps.length ? `${many(steps.length, 'step')} are too many to draw.` : 'No step is known.' }));
    return;
  }
  const ranks = 1 + Math.max(...graph.places.map(([rank]) => rank));
  const slots = 1 + Math.max(...graph.places.map(([, slot]) => slot), ...graph.ways.flatMap((way) => way.route.map(([, slot]) => slot)));
  const room = home.clientWidth || 900;
  const across = ranks * (NODE.width + 56), down = slots * (NODE.width + 20);
  const isWide = across - 56 <= room || (down > room && across < down) || (ranks > 14 && room > 700);
  const gap = isWide ? { rank: NODE.width + 56, slot: NODE.height + 24 } : { rank: NODE.height + 42, slot: NODE.width + 20 };
  const point = ([rank, slot]) => (isWide
    ? { x: rank * gap.rank + NODE.width / 2, y: slot * gap.slot + NODE.height / 2 }
    : { x: slot * gap.slot + NODE.width / 2, y: rank * gap.rank + NODE.height / 2 });
  const goesBack = graph.ways.some((way) => way.route.length === 2 && way.route[0][0] >= way.route[1][0]);
  const size = isWide
    ? { x: ranks * gap.rank - 56, y: slots * gap.slot - 24 + (goesBack ? 34 : 0) }
    : { x: slots * gap.slot - 20 + (goesBack ? 34 : 0), y: ranks * gap.rank - 42 };
  const scale = Math.min(1, Math.max(0.7, room / (size.x + 4)));
  const picture = drawn('svg', { viewBox: `-2 -2 ${size.x + 4} ${size.y + 4}`, width: (size.x + 4) * scale, height: (size.y + 4) * scale, role: 'group', 'aria-label': `Graph of ${many(steps.length, 'step')}` });
  picture.append(drawn('defs', {}, arrow('taken'), arrow('open')));
  const ways = [...graph.ways].sort((one, other) => one.taken - other.taken);
  for (const way of ways) picture.append(drawWay(way, point, isWide));
  steps.forEach((step, number) => picture.append(drawStep(step, number, point(graph.places[number]))));
  home.replaceChildren(picture);
}

function arrow(name) {
  return drawn('marker', { id: `arrow-${name}`, class: `arrow ${name}`, viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto' },
    drawn('path', { d: 'M0,0.6 L7.4,4 L0,7.4 z' }));
}

function drawWay(way, point, isWide) {
  const half = isWide ? { x: NODE.width / 2, y: 0 } : { x: 0, y: NODE.height / 2 };
  const stops = way.route.map(point);
  const [first, last] = [stops[0], stops[stops.length - 1]];
  let path;
  if (way.route.length === 2 && way.route[0][0] >= way.route[1][0]) path = backWay(first, last, isWide);
  else {
    let from = { x: first.x + half.x, y: first.y + half.y };
    path = `M${from.x},${from.y}`;
    stops.slice(1).forEach((stop, number) => {
      const isLast = number === stops.length - 2;
      const to = isLast ? { x: stop.x - half.x - 3 * (half.x > 0), y: stop.y - half.y - 3 * (half.y > 0) } : stop;
      const bend = isWide ? (to.x - from.x) / 2 : (to.y - from.y) / 2;
      path += isWide ? ` C${from.x + bend},${from.y} ${to.x - bend},${to.y} ${to.x},${to.y}` : ` C${from.x},${from.y + bend} ${to.x},${to.y - bend} ${to.x},${to.y}`;
      from = to;
    });
  }
  const state = way.taken ? 'taken' : 'open';
  const [start, to] = way.ends.map((number) => steps[number].name);
  return drawn('path', { class: `way ${state}`, d: path, 'marker-end': `url(#arrow-${state})` }, drawn('title', { text: `${start} → ${to}${way.taken ? '' : ', not taken'}` }));
}

function backWay(from, to, isWide) {
  if (isWide) {
    const low = Math.max(from.y, to.y) + NODE.height / 2 + 26;
    return `M${from.x},${from.y + NODE.height / 2} C${from.x},${low + 8} ${to.x - 24},${low + 8} ${to.x - 24},${to.y + NODE.height / 2 + 3}`;
  }
  const far = Math.max(from.x, to.x) + NODE.width / 2 + 26;
  return `M${from.x + NODE.width / 2},${from.y} C${far + 8},${from.y} ${far + 8},${to.y + 12} ${to.x + NODE.width / 2 + 3},${to.y + 12}`;
}

function drawStep(step, number, middle) {
  const count = step.commands.length;
  const all = count.toLocaleString('en'), kind = kindWord(step.kind);
  const [bad, word] = step.failed ? [step.failed, 'failed'] : [step.passed, 'let pass'];
  const under = count > 1 ? (bad ? `${bad.toLocaleString('en')} of ${all} ${word}` : `${all} × ${kind}`) : kind;
  const select = () => choose({ step: number }, true);
  const name = `${step.name}: ${under ? `${under}, ` : ''}${STATES[step.state].word}`;
  return drawn('g', {
    class: `node ${step.state}`, transform: `translate(${middle.x - NODE.width / 2},${middle.y - NODE.height / 2})`,
    role: 'button', tabindex: '0', 'aria-label': name, 'data-step': number,
    on: { click: select, keydown: (event) => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); select(); } } },
  },
  drawn('rect', { class: 'box', width: NODE.width, height: NODE.height, rx: 10 }),
  drawn('circle', { class: 'mark', cx: 22, cy: NODE.height / 2, r: 9 }),
  drawn('text', { class: 'sign', x: 22, y: NODE.height / 2 + 4, 'text-anchor': 'middle', 'aria-hidden': 'true', text: STATES[step.state].sign }),
  drawn('text', { class: 'name', x: 42, y: under ? 23 : 32, text: short(step.name, 18) }),
  under ? drawn('text', { class: 'under', x: 42, y: 40, text: short(under, 21) }) : null,
  drawn('title', { text: step.text || step.name }));
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function markNode(number) {
  for (const node of at('graph').querySelectorAll('.node')) node.classList.toggle('chosen', node.dataset.step === String(number));
}
