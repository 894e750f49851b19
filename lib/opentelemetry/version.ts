// As tracers and meters name this library. A test compares it with package.json.

export const name = 'express-background-tasks';
export const version = '0.1.0';
