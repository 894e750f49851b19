// memory(): the conformance suite. There is no other process, and no store that could be out of reach.

import { describeConformance } from '../drivers/conformance.js';

let stores = 0;

describeConformance('memory', {
  module: require.resolve('../drivers/fixtures/memory.ts'),
  lacks: ['processes'],
  createStore: () => ({ config: { name: String(++stores) }, remove: () => {} }),
});
