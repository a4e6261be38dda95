// Runs ONNX models with onnxruntime. Standard input has what to run, a JSON array of
// {file, feeds: {NAME: {type, dims, data}}, repeat}; standard output gets as many of
// {outputs: {NAME: {dims, data}}, micros} or {error}; micros is the median time of repeat runs on one thread.
'use strict';
const ort = require(require.resolve('onnxruntime-node', {paths: [process.argv[2]]}));
const fs = require('fs');

const arrays = {float32: Float32Array, int64: BigInt64Array, bool: Uint8Array, string: Array};

// tensor makes a tensor; JSON has null for NaN.
function tensor({type, dims, data}) {
  const value = {float32: v => v === null ? NaN : v, int64: BigInt}[type] || (v => v);
  return new ort.Tensor(type, arrays[type].from(data, value), dims);
}

async function median(session, feeds, repeat) {
  const times = [];
  for (let i = 0; i < repeat; i++) {
    const start = process.hrtime.bigint();
    await session.run(feeds);
    times.push(Number(process.hrtime.bigint() - start) / 1e3);
  }
  return times.sort((a, b) => a - b)[repeat >> 1];
}

async function run({file, feeds, repeat}) {
  const session = await ort.InferenceSession.create(file, {intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3});
  const tensors = Object.fromEntries(Object.entries(feeds).map(([name, t]) => [name, tensor(t)]));
  const outputs = {};
  for (const [name, t] of Object.entries(await session.run(tensors)))
    outputs[name] = {dims: t.dims, data: Array.from(t.data, Number)};
  const micros = repeat ? await median(session, tensors, repeat) : 0;
  await session.release();
  return {outputs, micros};
}

(async () => {
  const results = [];
  for (const c of JSON.parse(fs.readFileSync(0)))
    results.push(await run(c).catch(e => ({error: String(e.message || e)})));
  process.stdout.write(JSON.stringify(results));
})();
