// As tracers and meters name this library. A test compares it with package.json.

export const name: string = 'express-background-tasks';
export const version: string = '0.2.0';
