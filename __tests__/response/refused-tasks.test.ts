// What add() and task() refuse at the call site since it would never run, and what a `when` may do to its outcome.

import { type BackgroundTasks, backgroundTasks, type ResponseOutcome, task } from '../../lib/index.js';
import { expresses, serve } from '../fixtures/serve.js';

function* generator(): Generator<number> {
  yield 1;
}

async function* asyncGenerator(): AsyncGenerator<number> {
  yield 1;
}

const anything = (value: unknown): never => value as never;

describe.each(expresses)('on Express %s', (_version, express) => {
  async function request(handler: (tasks: BackgroundTasks) => void): Promise<unknown> {
    const app = express();
    const middleware = backgroundTasks();
    let thrown: unknown;
    app.use(middleware);
    app.get('/', (_req, res) => {
      try {
        handler(res.locals.backgroundTasks);
      } catch (error) {
        thrown = error;
      }
      res.sendStatus(200);
    });
    const { url } = await serve(app);
    await fetch(url);
    await middleware.idle();
    return thrown;
  }

  it.each([
    ['a generator function', generator],
    ['an async generator function', asyncGenerator],
    ['a bound generator function', generator.bind(null)],
  ])('promise 14: add() refuses %s, since nothing would run its body', async (_title, fn) => {
    expect(await request((tasks) => tasks.add(anything(fn)))).toMatchObject({
      code: 'ERR_INVALID_TASK',
      message: expect.stringContaining('generator function'),
    });
  });

  it('promise 14: add() says of a remote task that it is for enqueue()', async () => {
    const resize = task<[string]>('images.resize');
    expect(await request((tasks) => tasks.add(anything(resize)))).toMatchObject({
      code: 'ERR_INVALID_TASK',
      message: 'add(): the handler of task "images.resize" is in another program: use enqueue()',
    });
  });

  it('promise 6: a when that writes to its outcome changes nothing for others', async () => {
    const seen: number[] = [];
    const spoil = (outcome: ResponseOutcome): boolean => {
      outcome.statusCode = 500;
      return true;
    };
    const look = ({ statusCode }: ResponseOutcome): boolean => {
      seen.push(statusCode);
      return true;
    };
    await request((tasks) => {
      tasks.add(task('spoils', () => {}, { when: spoil }));
      tasks.add(task('looks', () => {}, { when: look }));
    });
    expect(seen).toEqual([200]);
  });
});

it.each([
  ['a generator function', generator],
  ['an async generator function', asyncGenerator],
  ['a bound generator function', asyncGenerator.bind(null)],
])('promise 14: task() refuses %s as a handler', (_title, fn) => {
  expect(() => task('t', anything(fn))).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_TASK', message: expect.stringContaining('"t"') }),
  );
});
