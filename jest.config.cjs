const { availableParallelism } = require('node:os');

/** @type {import('jest').Config} */
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/__tests__'],
  testMatch: ['**/*.test.ts'],
  // Types are checked by `npm run types`.
  transform: { '^.+\\.ts$': ['ts-jest', { diagnostics: false }] },
  moduleNameMapper: {
    '^(\\.{1,2}/.*)\\.js$': '$1',
    // As the paths of tsconfig.json.
    '^express-background-tasks$': '<rootDir>/lib',
    '^express-background-tasks/(bull-board|engine|opentelemetry|prometheus|shutdown|testing|threads)$':
      '<rootDir>/lib/$1',
    '^express-background-tasks/(.*)$': '<rootDir>/lib/drivers/$1',
  },
  // The suites of the engines wait for servers and leases most of the time.
  maxWorkers: availableParallelism() + 6,
  testSequencer: '<rootDir>/scripts/jest-longest-first.cjs',
  testTimeout: 60_000, // For a machine with other work: no test comes near it.
  // The engines need what not every machine has: the conformance suite covers them where it runs.
  // What runs inside of a thread only is out of its reach, too.
  collectCoverageFrom: [
    'lib/**/*.ts',
    '!lib/drivers/**',
    '!lib/engine/**',
    '!lib/threads/worker.ts',
    '!lib/threads/load.ts',
  ],
  coverageReporters: ['text'],
  coverageThreshold: { global: { lines: 100, branches: 100, functions: 100, statements: 100 } },
};
