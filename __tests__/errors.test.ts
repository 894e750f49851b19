// The error class: what programs and Express read of it.

import { BackgroundTasksError } from '../lib/index';
import { expresses, serve } from './fixtures/serve';

describe('BackgroundTasksError', () => {
  it('is an Error with a name and a code', () => {
    const error = new BackgroundTasksError('ERR_INVALID_TASK', 'no function');
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe('BackgroundTasksError');
    expect(error.code).toBe('ERR_INVALID_TASK');
    expect(String(error)).toBe('BackgroundTasksError: no function');
    expect(error.stack).toMatch(/^BackgroundTasksError: no function\n {4}at .*errors\.test\.ts/);
  });

  it('keeps its cause', () => {
    const cause = new Error('why');
    expect(new BackgroundTasksError('ERR_INVALID_TASK', 'no function', { cause }).cause).toBe(cause);
  });

  it('has a status only where its code stands for one', () => {
    expect(new BackgroundTasksError('ERR_TASKS_CLOSED', 'closed').status).toBe(503);
    expect(new BackgroundTasksError('ERR_TASKS_OVERLOADED', 'full').status).toBe(503);
    expect(new BackgroundTasksError('ERR_INVALID_TASK', 'no function')).not.toHaveProperty('status');
  });

  it.each(expresses)('is answered with its status by Express %s', async (_version, express) => {
    const app = express();
    app.set('env', 'test'); // Express then prints no errors.
    app.get('/overloaded', () => {
      throw new BackgroundTasksError('ERR_TASKS_OVERLOADED', 'full');
    });
    app.get('/invalid', () => {
      throw new BackgroundTasksError('ERR_INVALID_TASK', 'no function');
    });
    const { url } = await serve(app);
    expect((await fetch(`${url}/overloaded`)).status).toBe(503);
    expect((await fetch(`${url}/invalid`)).status).toBe(500);
  });
});
