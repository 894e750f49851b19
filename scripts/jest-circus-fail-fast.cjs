// For `npm run mutation`: a mutant is dead with the first test that fails, and so the rest of its tests are skipped, in the
// file and in those after it. Jest's own --bail is not available to who calls Jest from a program. A file that has none of the
// tests that reach the mutant is not loaded.

const { existsSync, readFileSync, writeFileSync } = require('node:fs');
const { createEmptyTestResult } = require('@jest/test-result');
const { default: circus } = require('jest-circus/runner');

/** The mutant that was killed last, by the environment variable in which Stryker names the one under test. */
let killed;

module.exports = async function run(globalConfig, config, environment, runtime, testPath, sendMessage) {
  const mutant = process.env.__STRYKER_ACTIVE_MUTANT__;
  const isKilled = () => mutant !== undefined && killed === mutant;
  const pattern = new RegExp(globalConfig.testNamePattern ?? '', 'i');
  const isToRun = (name) => pattern.test(name);
  if (isKilled() || namesOf(testPath)?.some(isToRun) === false) return skippedFile(testPath);

  const handle = environment.handleTestEvent?.bind(environment);
  environment.handleTestEvent = async (event, state) => {
    if (event.name === 'test_start' && isKilled()) event.test.mode = 'skip';
    if (event.name === 'test_done' && event.test.errors.length > 0) killed = mutant;
    await handle?.(event, state);
  };
  const result = await circus(globalConfig, config, environment, runtime, testPath, sendMessage);
  const names = result.testResults.map(({ fullName }) => fullName);
  if (mutant === undefined) writeFileSync(namesFile(testPath), JSON.stringify(names));
  return result;
};

/** In the sandbox, since other processes run the mutants, and a new one after each that does not end. */
const namesFile = (testPath) => `${testPath}.names.json`;

function namesOf(testPath) {
  return existsSync(namesFile(testPath)) ? JSON.parse(readFileSync(namesFile(testPath), 'utf8')) : undefined;
}

/** Jest takes a file without any test for a mistake. */
function skippedFile(testFilePath) {
  const title = 'skipped';
  const test = {
    ancestorTitles: [],
    duration: 0,
    failureDetails: [],
    failureMessages: [],
    fullName: title,
    status: 'pending',
    title,
  };
  return { ...createEmptyTestResult(), testFilePath, numPendingTests: 1, testResults: [test] };
}
