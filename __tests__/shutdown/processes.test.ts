// Real processes and real signals. What goes on inside is in the tests beside this one.

import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import { get as getSecurely } from 'node:https';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { type Program, start } from './fixtures/process.js';
import { clientOptions } from './fixtures/tls.js';

jest.setTimeout(120_000);

const agent = new Agent({ keepAlive: true });
afterAll(() => agent.destroy());

/** Resolves with the answer as far as it came. */
async function ask({ port }: Program, path: string): Promise<string> {
  const request = get({ host: '127.0.0.1', port, path, agent });
  try {
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    return await text(response);
  } catch (error) {
    return `no answer: ${(error as NodeJS.ErrnoException).code}`;
  }
}

/** Resolves when the server takes no more connections. */
async function refused({ port }: Program): Promise<void> {
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    try {
      await once(socket, 'connect');
      socket.destroy();
    } catch {
      return;
    }
  }
}

describe('at a signal', () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('ends idle connections and exits with 0, at %s', async (signal) => {
    const program = await start();
    expect(await ask(program, '/')).toBe('answered');
    program.process.kill(signal);
    expect(await program.exited()).toEqual({ code: 0, signal: null });
    expect(program.output()).toContain(
      `closed: ${JSON.stringify({ signal, unanswered: 0, succeeded: 0, failed: 0, abandoned: 0 })}`,
    );
  });

  it('lets an answer that is under way end, and the task that it adds', async () => {
    const program = await start();
    const answer = ask(program, '/waits');
    await program.printed('waits');
    program.process.kill('SIGTERM');
    await refused(program);
    program.release();
    expect(await answer).toBe('answered');
    expect(await program.exited()).toEqual({ code: 0, signal: null });
    expect(program.output()).toMatch(/the task of the last request has run.*"succeeded":1/s);
  });

  it('lets a task end that runs', async () => {
    const program = await start();
    await ask(program, '/adds/one');
    await program.printed('the task runs');
    program.process.kill('SIGTERM');
    await refused(program);
    program.release();
    expect(await program.exited()).toEqual({ code: 0, signal: null });
    expect(program.output()).toMatch(/the task has ended.*"succeeded":1,"failed":0,"abandoned":0/s);
  });

  it('ends an event stream', async () => {
    const program = await start();
    const url = `http://127.0.0.1:${program.port}/tasks`;
    const { id } = (await (await fetch(url, { method: 'POST' })).json()) as { id: string };
    const stream = await fetch(`${url}/${id}`, { headers: { Accept: 'text/event-stream' } });
    program.process.kill('SIGTERM');
    expect(await stream.text()).toContain('"state":"queued"');
    expect(await program.exited()).toEqual({ code: 0, signal: null });
  });

  it('cuts off a request that never ends, and gives up a task that never ends: reports both, and exits with 1', async () => {
    const program = await start({ timeout: 8000 });
    await ask(program, '/adds/endless');
    await program.printed('the task runs');
    const answer = ask(program, '/never');
    await program.printed('never');
    program.process.kill('SIGTERM');
    expect(await answer).toBe('no answer: ECONNRESET');
    expect(await program.exited()).toEqual({ code: 1, signal: null });
    expect(program.output()).toMatch(
      /"requests" failed: Error: requests that were cut off before they were answered: 1/,
    );
    expect(program.output()).toMatch(/"adds" failed.*ERR_TASK_ABANDONED/s);
    expect(program.output()).toContain('"unanswered":1,"succeeded":0,"failed":0,"abandoned":1}');
  });

  it('exits with 1 if onClose fails, and says why', async () => {
    const program = await start({ onClose: 'throws' });
    program.process.kill('SIGTERM');
    expect(await program.exited()).toEqual({ code: 1, signal: null });
    expect(program.output()).toContain('"onClose" failed: Error: the database is away');
  });

  it('ends at once at a second one, with 1, and says how many tasks are lost', async () => {
    const program = await start({ timeout: 60_000 });
    await ask(program, '/adds/endless');
    await program.printed('the task runs');
    program.process.kill('SIGTERM');
    await refused(program);
    program.process.kill('SIGINT');
    expect(await program.exited()).toEqual({ code: 1, signal: null });
    expect(program.output()).toContain('A second signal ends the process at once, with 1 tasks that had not ended');
    expect(program.output()).not.toContain('closed:');
  });

  it('takes the same signal at once again for an echo', async () => {
    const program = await start();
    await ask(program, '/adds/one');
    await program.printed('the task runs');
    for (let count = 0; count < 3; count++) program.process.kill('SIGINT');
    await refused(program);
    program.release();
    expect(await program.exited()).toEqual({ code: 0, signal: null });
    expect(program.output()).toContain('"succeeded":1');
  });

  it('does the same behind TLS', async () => {
    const program = await start({ https: true });
    const request = getSecurely({ host: '127.0.0.1', port: program.port, path: '/waits', ...clientOptions });
    const answered = once(request, 'response') as Promise<[IncomingMessage]>;
    await program.printed('waits');
    program.process.kill('SIGTERM');
    await refused(program);
    program.release();
    const [response] = await answered;
    expect(response.headers.connection).toBe('close');
    expect(await text(response)).toBe('answered');
    expect(await program.exited()).toEqual({ code: 0, signal: null });
  });

  it('does the same in the worker of a cluster', async () => {
    const program = await start({}, 'cluster.ts');
    expect(await ask(program, '/')).toBe('answered');
    program.process.kill('SIGTERM');
    expect(await program.exited()).toEqual({ code: 0, signal: null });
    expect(program.output()).toContain('closed: {"signal":"SIGTERM","unanswered":0');
  });
});

describe('after an error that nobody caught', () => {
  it.each([
    ['throws', 'nobody caught this'],
    ['rejects', 'nobody awaited this'],
  ])('lets the tasks end, logs it, and exits with 1, where something %s', async (how, message) => {
    const program = await start();
    await ask(program, '/adds/one');
    await program.printed('the task runs');
    await ask(program, `/fails/${how}`);
    await refused(program);
    program.release();
    expect(await program.exited()).toEqual({ code: 1, signal: null });
    expect(program.output()).toMatch(new RegExp(`An error that nobody caught.*${message}.*"succeeded":1`, 's'));
  });
});

it('shuts down at the message of PM2', async () => {
  const program = await start();
  program.process.send('shutdown');
  expect(await program.exited()).toEqual({ code: 0, signal: null });
  expect(program.output()).toContain('closed: {"unanswered":0');
});

it('leaves nothing behind that keeps the process alive', async () => {
  const program = await start({ closes: true });
  await ask(program, '/');
  program.release();
  expect(await program.exited()).toEqual({ code: 0, signal: null });
  expect(program.output()).toContain('closed: {"unanswered":0');
});
