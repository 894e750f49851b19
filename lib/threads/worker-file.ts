// Where the program of the threads is: beside this file, as TypeScript where this is.

export const workerFile = require.resolve('./worker.js');
