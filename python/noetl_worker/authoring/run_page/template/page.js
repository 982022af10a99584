// The page is put together, and follows what its reader does.
function drawHead() {
  at('path').textContent = run.path || 'a playbook';
  document.title = `${run.path || 'run'}: ${run.status.toLowerCase()}`;
  at('state').replaceChildren(pill(stateOfRun, run.status.toLowerCase()));
  const facts = [
    ['took', run.end === null ? (isOver ? '' : 'still running') : duration(run.end)], ['commands', commands.length.toLocaleString('en')], ['failed', failedCount || ''], ['let pass', passedCount || ''],
    ['started', clock(0).slice(0, 19) + ' UTC'], ['execution', run.id], ['version', run.version], ['child of', run.parent], ['plane', run.plane],
  ].filter(([, value]) => value !== '');
  at('facts').replaceChildren(...facts.map(([name, value]) => element('div', {}, element('dt', { text: name }), name === 'child of' && isShown(value)
    ? element('dd', {}, element('a', { class: 'link', href: linkTo(value === root.run.id ? '' : value), text: value })) : element('dd', { text: value }))));
  const failed = firstFailed;
  const text = failed ? `${nameOf(failed)}: ${failed.error || 'failed'}` : run.error;
  at('error').hidden = !text || stateOfRun === 'done';
  if (!at('error').hidden) {
    at('error').replaceChildren(element('span', { text: text.split('\n', 1)[0] }),
      ...(failed ? [element('button', { type: 'button', class: 'link', text: 'Show it', on: { click: () => choose({ command: failed }, true) } })] : []));
  }
  at('notes').replaceChildren(...run.notes.map((text) => element('li', { text })));
  at('made').textContent = `Written by noetl-worker ${run.by}, ${new Date(run.written).toISOString().slice(0, 19).replace('T', ' ')} UTC. Values are redacted.`;
  at('only-failed').parentElement.hidden = failedCount + passedCount === 0;
  at('only-differing').parentElement.hidden = !data.against;
  drawCompared();
  const states = Object.keys(STATES).filter((state) => steps.some((step) => step.state === state));
  at('legend').replaceChildren(...states.map((state) => element('li', { class: state }, element('span', { class: 'dot', 'aria-hidden': 'true' }), STATES[state].word)));
}

function measure() {
  rowHeight = parseFloat(getComputedStyle(tree).getPropertyValue('--row')) || 36;
  drawGraph();
  drawAxis();
  listRows();
  const longest = rows.length * rowHeight + 2;
  tree.style.minHeight = `${Math.min(longest, 6 * rowHeight)}px`;
  if (chosen) markNode(chosenStep());
  render();
}

function chosenStep() {
  const row = rows.find((one) => keyOf(one) === chosen);
  return row && (row.step ?? row.top);
}

function begin() {
  opened.clear();
  drawHead();
  if (firstFailed && steps[firstFailed.step].commands.length <= 20) opened.add(`s${firstFailed.step}`);
  listRows();
  choose(firstFailed ? { command: firstFailed } : { level: 1 });
  measure();
}

const hashed = () => decodeURIComponent(location.hash.slice(1));
take(root, hashed());
begin();

let isAsked = false;
tree.addEventListener('scroll', () => {
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(() => { isAsked = false; render(); });
}, { passive: true });
tree.addEventListener('keydown', onKey);
function relist() {
  listRows();
  tree.scrollTop = 0;
  render();
}
at('search').addEventListener('input', (event) => {
  sought = event.target.value.trim().toLowerCase();
  search = sought.split(/\s+/).filter(Boolean);
  relist();
});
at('only-failed').addEventListener('change', (event) => { onlyFailed = event.target.checked; relist(); });
at('only-differing').addEventListener('change', (event) => { onlyDiffering = event.target.checked; relist(); });
at('as-tree').addEventListener('click', () => setStream(false));
at('as-stream').addEventListener('click', () => setStream(true));
addEventListener('hashchange', () => {
  if (hashed() && !(hashed() in root.children)) return;  // a place on this page
  take(root, hashed());
  begin();
  scrollTo(0, 0);
});
let width = innerWidth;
addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; measure(); } });
addEventListener('beforeprint', () => { isPrinting = true; for (const [number, step] of steps.entries()) if (step.commands.length <= 50) opened.add(`s${number}`); measure(); });
addEventListener('afterprint', () => { isPrinting = false; measure(); });
